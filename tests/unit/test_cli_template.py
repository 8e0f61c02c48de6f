"""Go templates: a table of source, data and result; the results are Go's."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli.template import Template
from pier.cli.template_functions import to_json
from pier.cli.template_parser import TemplateError

DATA = {
    "Name": "web",
    "Running": True,
    "Pid": 42,
    "Ratio": 1.5,
    "Zero": 0,
    "Empty": "",
    "Nil": None,
    "Env": ["A=1", "B=2"],
    "Labels": {"b.c": "y", "a": "x"},
    "State": {"Health": {"Log": [{"Code": 0}, {"Code": 1}]}},
    "Label": lambda name: f"label {name}",
}

CASES = [
    ("plain", "plain"),
    ("{{.Name}}", "web"),
    ("{{ .Name }}!", "web!"),
    ("{{.Running}} {{.Pid}} {{.Ratio}}", "true 42 1.5"),
    ("{{.Nil}}", "<no value>"),
    ("{{.Env}}", "[A=1 B=2]"),
    ("{{.Labels}}", "map[a:x b.c:y]"),
    ("{{.State.Health.Log}}", "[map[Code:0] map[Code:1]]"),
    ('{{index .Labels "b.c"}}', "y"),
    ('{{index .Labels "none"}}', ""),
    ("{{index .Env 1}}", "B=2"),
    ("{{(index .State.Health.Log 1).Code}}", "1"),
    ('{{.Label "x"}}', "label x"),
    ('{{"x" | .Label}}', "label x"),
    ("{{range .Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
    ("{{range $i, $e := .Env}}{{$i}}{{$e}} {{end}}", "0A=1 1B=2 "),
    ("{{range $e := .Env}}{{$e}}{{$.Name}} {{end}}", "A=1web B=2web "),
    ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=x;b.c=y;"),
    ("{{range .Nil}}x{{else}}none{{end}}", "none"),
    ("{{if .Running}}up{{else}}down{{end}}", "up"),
    ("{{if .Zero}}a{{else if .Empty}}b{{else if .Nil}}c{{else}}d{{end}}", "d"),
    ("{{if not .Zero}}z{{end}}", "z"),
    ("{{with .State}}{{len .Health.Log}}{{end}}", "2"),
    ("{{with $x := .Name}}{{$x}}{{.}}{{end}}", "webweb"),
    ("{{with .Empty}}a{{else}}b{{end}}", "b"),
    ('{{$x := "v"}}{{$x}}{{$x = "w"}}{{$x}}', "vw"),
    ('{{eq .Name "web"}} {{ne .Pid 42}} {{eq .Pid 1 42}}', "true false true"),
    ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}}", "true true false true"),
    ('{{and .Running "yes"}} {{or .Empty "dflt"}} {{and .Zero .Nope}}', "yes dflt 0"),
    ('{{json .Labels}} {{json "a<b>"}} {{json .Nil}}', '{"b.c":"y","a":"x"} "a<b>" null'),
    ('{{join .Env ","}}', "A=1,B=2"),
    ('{{split "a/b" "/"}} {{len (split "a/b/c" "/")}}', "[a b] 3"),
    ("{{upper .Name}} {{lower .Name}} {{title .Name}}", "WEB web Web"),
    ("{{truncate .Name 2}} {{pad .Name 1 2}}|", "we  web  |"),
    ('{{print 1 2 "a" "b" 3}} {{println "x" 1}}', "1 2ab3 x 1\n"),
    (
        '{{printf "%s-%d-%v-%q-%5s|%-5s|%05d %%" .Name .Pid .Env .Name .Name .Name 7}}',
        'web-42-[A=1 B=2]-"web"-  web|web  |00007 %',
    ),
    (
        '{{printf "%d" "x"}} {{printf "%s"}} {{printf "a" 1}}',
        "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)",
    ),
    ('{{printf "%x %X %t %T %.2f" 255 255 true .Env .Ratio}}', "ff FF true []interface {} 1.50"),
    ('{{.Name | upper | printf "%s!"}}', "WEB!"),
    ("a {{- .Name -}} b", "awebb"),
    ("a {{- /* comment */ -}} b", "ab"),
    ("a {{/* }} */}} b", "a  b"),
    ('{{"a\\tb\\n"}}{{`raw\\t`}}{{"}}"}}', "a\tb\nraw\\t}}"),
    ("{{slice .Name 1 2}} {{slice .Env 1}}", "e [B=2]"),
    ("{{'a'}} {{0x10}} {{-3}} {{true}}", "97 16 -3 true"),
    ('{{html "<a&\'\\">"}} {{urlquery "a b&c"}}', "&lt;a&amp;&#39;&#34;&gt; a+b%26c"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("é{{.Name}}ü", "éwebü"),
    ('{{"é\\u00e9"}}', "éé"),
]


@pytest.mark.parametrize(("source", "expected"), CASES)
def test_renders(source, expected):
    assert Template(source).render(DATA) == expected


UNPARSABLE = [
    ("{{.Name", "template: :1: unclosed action"),
    ("a\n{{.Name", "template: :2: unclosed action"),
    ("{{nope .Name}}", 'template: :1: function "nope" not defined'),
    ("{{}}", "template: :1: missing value for command"),
    ("{{if .Name}}", "template: :1: unexpected EOF"),
    ("{{end}}", "template: :1: unexpected {{end}}"),
    ("{{else}}", "template: :1: unexpected {{else}}"),
    ("{{(.Name}}", "template: :1: unclosed left paren"),
]


@pytest.mark.parametrize(("source", "message"), UNPARSABLE)
def test_refuses_to_parse(source, message):
    with pytest.raises(TemplateError) as caught:
        Template(source)
    assert str(caught.value) == message


FAILING = [
    ("{{.Nope}}", 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
    (
        "{{.State.Nope.X}}",
        'template: :1:8: executing "" at <.State.Nope.X>: map has no entry for key "Nope"',
    ),
    (
        "{{.Name.X}}",
        'template: :1:7: executing "" at <.Name.X>: can\'t evaluate field X in type interface {}',
    ),
    ("{{index .Env 5}}", "error calling index: index out of range: 5"),
    ("{{join .Env}}", "error calling join"),
    ("{{$nope}}", 'undefined variable "$nope"'),
]


@pytest.mark.parametrize(("source", "message"), FAILING)
def test_fails_to_execute(source, message):
    with pytest.raises(TemplateError) as caught:
        Template(source).render(DATA)
    assert message in str(caught.value)


def test_missing_field_names_the_type():
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*x\.Y"):
        Template("{{.Foo}}", what="*x.Y").render({"ID": "1"})


@given(st.text(alphabet=st.characters(exclude_characters="{}", exclude_categories=["Cs"])))
def test_text_is_itself(text):
    assert Template(text).render({}) == text


@given(st.text(alphabet="{}.|()$ \"`'-abif end:=", max_size=30))
def test_any_source_renders_or_is_refused(source):
    with suppress(TemplateError):
        Template(source).render(DATA)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_json(value):
    assert json.loads(to_json(value)) == value
    assert json.loads(to_json(value, escape_html=True)) == value
