"""What requests about meters and prices do.

A handler gets the world, the ids of the path and the checked parameters; it returns the object
that is answered.
"""

from typing import Final

from fake_stripe import objects
from fake_stripe.objects import Object
from fake_stripe.routes import Ids, on, page
from fake_stripe.world import Refused, World

METER_DAYS_BACK: Final = 35
METER_DIGITS_MAX: Final = 15


@on("POST", "/v1/billing/meters")
def create_meter(world: World, ids: Ids, given: Object) -> Object:
    if given["event_name"] in {each["event_name"] for each in world.meters.values()}:
        raise Refused(400, f"A meter for {given['event_name']} already exists.")
    made = objects.meter(world.new_id("mtr"), world.now, given)
    world.meters[made["id"]] = made
    return made


@on("GET", "/v1/billing/meters")
def list_meters(world: World, ids: Ids, given: Object) -> Object:
    return page("/v1/billing/meters", world.meters.values(), given)


@on("POST", "/v1/prices")
def create_price(world: World, ids: Ids, given: Object) -> Object:
    if given["recurring"]["meter"] not in world.meters:
        raise Refused(400, "There is no such meter.")
    if given.get("lookup_key") in {each["lookup_key"] for each in world.prices.values()}:
        raise Refused(400, "A price with this lookup key already exists.")
    made = objects.price(world.new_id("price"), world.now, given)
    world.prices[made["id"]] = made
    return made


@on("GET", "/v1/prices")
def list_prices(world: World, ids: Ids, given: Object) -> Object:
    keys = given.get("lookup_keys")
    prices = (each for each in world.prices.values() if keys is None or each["lookup_key"] in keys)
    return page("/v1/prices", prices, given)


@on("POST", "/v1/billing/meter_events")
def create_meter_event(world: World, ids: Ids, given: Object) -> Object:
    meter = next(
        (each for each in world.meters.values() if each["event_name"] == given["event_name"]),
        None,
    )
    customer = given["payload"].get("stripe_customer_id", "")
    value = given["payload"].get("value", "")
    at = given.get("timestamp", world.now)
    if meter is None:
        raise Refused(400, f"There is no meter for {given['event_name']}.")
    if customer not in world.customers:
        raise Refused(400, f"No such customer: '{customer}'")
    if not value.isdecimal() or len(value) > METER_DIGITS_MAX:
        raise Refused(400, "The value must be a whole number of at most 15 digits.")
    if not world.now - METER_DAYS_BACK * 86_400 <= at <= world.now + 300:
        raise Refused(400, "The timestamp is not within the past 35 days.")
    identifier = given.get("identifier") or world.new_id("identifier")
    if identifier in world.meter_identifiers:
        raise Refused(400, f"An event with the identifier {identifier} already exists.")
    world.take_number()
    world.meter_identifiers.add(identifier)
    window = {"hour": 3600, "day": 86_400, None: 1}[meter["event_time_window"]]
    world.meter_values[meter["id"], customer, at - at % window] = int(value)
    return {
        "object": "billing.meter_event",
        **objects.TEST,
        "created": world.now,
        "event_name": given["event_name"],
        "identifier": identifier,
        "payload": given["payload"],
        "timestamp": at,
    }


@on("GET", "/v1/billing/meters/{id}/event_summaries")
def list_summaries(world: World, ids: Ids, given: Object) -> Object:
    start, end = given["start_time"], given["end_time"]
    total = sum(
        value
        for (meter, customer, at), value in world.meter_values.items()
        if (meter, customer) == (ids["id"], given["customer"]) and start <= at < end
    )
    summary = {
        "id": world.new_id("mtrusg"),
        "object": "billing.meter_event_summary",
        **objects.TEST,
        "aggregated_value": total,
        "start_time": start,
        "end_time": end,
        "meter": ids["id"],
    }
    return objects.listing(f"/v1/billing/meters/{ids['id']}/event_summaries", [summary])
