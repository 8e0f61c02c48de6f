"""The rules of `docker build --check`, by BuildKit's names (docs.docker.com/reference/build-checks)."""

from msgspec import Struct

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


class Rule(Struct, frozen=True):
    """`text` is what is said of a finding, for `str.format`. An experimental rule must be asked for."""

    name: str
    description: str
    page: str
    text: str
    experimental: bool = False

    @property
    def url(self) -> str:
        return f"{_PAGES}{self.page}/" if self.page else ""


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "StageNameCasing",
            "Stage names should be lowercase",
            "stage-name-casing",
            "Stage name '{}' should be lowercase",
        ),
        Rule(
            "FromAsCasing",
            "The 'as' keyword should match the case of the 'from' keyword",
            "from-as-casing",
            "'{}' and '{}' keywords' casing do not match",
        ),
        Rule(
            "NoEmptyContinuation",
            "Empty continuation lines will become errors in a future release",
            "no-empty-continuation",
            "Empty continuation line",
        ),
        Rule(
            "ConsistentInstructionCasing",
            "All commands within the Dockerfile should use the same casing (either upper or lower)",
            "consistent-instruction-casing",
            "Command '{}' should match the case of the command majority ({})",
        ),
        Rule(
            "DuplicateStageName",
            "Stage names should be unique",
            "duplicate-stage-name",
            "Duplicate stage name {}, stage names should be unique",
        ),
        Rule(
            "ReservedStageName",
            "Reserved words should not be used as stage names",
            "reserved-stage-name",
            "Stage name should not use the same name as reserved stage {}",
        ),
        Rule(
            "JSONArgsRecommended",
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to "
            "OS signals",
            "json-args-recommended",
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
        ),
        Rule(
            "MaintainerDeprecated",
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            "maintainer-deprecated",
            "Maintainer instruction is deprecated in favor of using label",
        ),
        Rule(
            "UndefinedArgInFrom",
            "FROM command must use declared ARGs",
            "undefined-arg-in-from",
            "FROM argument '{}' is not declared{}",
        ),
        Rule(
            "WorkdirRelativePath",
            "Relative workdir without an absolute workdir declared within the build can have "
            "unexpected results if the base image changes",
            "workdir-relative-path",
            "Relative workdir {} can have unexpected results if the base image changes",
        ),
        Rule(
            "UndefinedVar",
            "Variables should be defined before their use",
            "undefined-var",
            "Usage of undefined variable '${}'{}",
        ),
        Rule(
            "MultipleInstructionsDisallowed",
            "Multiple instructions of the same type should not be used in the same stage",
            "multiple-instructions-disallowed",
            "Multiple {} instructions should not be used in the same stage because only the last one "
            "will be used",
        ),
        Rule(
            "LegacyKeyValueFormat",
            "Legacy key/value format with whitespace separator should not be used",
            "legacy-key-value-format",
            '"{0} key=value" should be used instead of legacy "{0} key value" format',
        ),
        Rule(
            "InvalidBaseImagePlatform",
            "Base image platform does not match expected target platform",
            "",
            "Base image {} was pulled with platform {}, expected {} for current build",
        ),
        Rule(
            "RedundantTargetPlatform",
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the "
            "default behavior",
            "redundant-target-platform",
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
        ),
        Rule(
            "SecretsUsedInArgOrEnv",
            "Sensitive data should not be used in the ARG or ENV commands",
            "secrets-used-in-arg-or-env",
            "Do not use ARG or ENV instructions for sensitive data ({} {})",
        ),
        Rule(
            "InvalidDefaultArgInFrom",
            "Default value for global ARG results in an empty or invalid base image name",
            "invalid-default-arg-in-from",
            "Default value for ARG {} results in empty or invalid base image name",
        ),
        Rule(
            "FromPlatformFlagConstDisallowed",
            "FROM --platform flag should not use a constant value",
            "from-platform-flag-const-disallowed",
            "FROM --platform flag should not use constant value {}",
        ),
        Rule(
            "CopyIgnoredFile",
            "Attempting to Copy file that is excluded by .dockerignore",
            "copy-ignored-file",
            "Attempting to {} file {} that is excluded by .dockerignore",
            experimental=True,
        ),
        Rule(
            "InvalidDefinitionDescription",
            "Comment for build stage or argument should follow the format: `# <arg/stage name> "
            "<description>`. If this is not intended to be a description comment, add an empty line "
            "or comment between the instruction and the comment.",
            "invalid-definition-description",
            "Comment for {} should follow the format: `# {} <description>`",
            experimental=True,
        ),
        Rule(
            "ExposeProtoCasing",
            "Protocol in EXPOSE instruction should be lowercase",
            "expose-proto-casing",
            "Defined protocol '{}' in EXPOSE instruction should be lowercase",
        ),
        Rule(
            "ExposeInvalidFormat",
            "IP address and host-port mapping should not be used in EXPOSE instruction. This will "
            "become an error in a future release",
            "expose-invalid-format",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
        ),
    )
}
