"""Routes of Pier's own: how containers (`container=`) are connected, and what they and networks
(`network=`) may reach.
"""

from aiohttp import web

from pier.api.answers import empty_answer, json_answer
from pier.api.body import read_as
from pier.api.call import Call
from pier.api.router import Routes
from pier.engine.egress_trial import try_target
from pier.engine.explain import explain
from pier.errors import InvalidParameter
from pier.model.egress import EgressReport, EgressRequest


async def show(call: Call) -> web.StreamResponse:
    return json_answer(_report(call))


def _report(call: Call) -> EgressReport:
    networks = call.engine.networks
    if call.text("network"):
        return networks.egress.network_report(networks.store.get(call.text("network")))
    if not call.text("container"):
        raise InvalidParameter("container= or network= is missing")
    return networks.egress.report(call.engine.networks.container(call.text("container")).record)


async def change(call: Call) -> web.StreamResponse:
    request = await read_as(call.request, EgressRequest, required=True)
    await call.engine.networks.police(call.text("network"), request.Policy)
    return empty_answer(204)


async def test(call: Call) -> web.StreamResponse:
    networks = call.engine.networks
    container = call.engine.networks.container(call.text("container"))
    return json_answer(
        await try_target(
            container,
            call.text("target"),
            policies=networks.egress,
            endpoints=networks.endpoints,
            namespaces=networks.namespaces,
            gateways=networks.host_gateways(),
        )
    )


async def explained(call: Call) -> web.StreamResponse:
    container = call.engine.networks.container(call.text("container"))
    root = call.engine.settings.data_root
    return json_answer(explain(container, call.engine.networks, root))


ROUTES: Routes = {
    "GET /pier/egress": show,
    "POST /pier/egress": change,
    "GET /pier/egress/test": test,
    "GET /pier/explain": explained,
}
