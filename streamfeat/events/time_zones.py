"""Abbreviations of time zones: those that have one meaning all the year, and why others have not."""

UTC_NAMES = ("Z", "UTC", "GMT", "UT")

# One meaning, and no summer time under the same name.
FIXED_OFFSETS = {
    "JST": "+09",
    "KST": "+09",
    "HKT": "+08",
    "SGT": "+08",
    "WIB": "+07",
    "PKT": "+05",
    "NPT": "+05:45",
    "EAT": "+03",
    "SAST": "+02",
}

_MEANINGS = {
    "CST": "-06:00 in North America, -05:00 in Cuba and +08:00 in China",
    "IST": "+05:30 in India, +01:00 in Ireland and +02:00 in Israel",
    "BST": "+01:00 in Britain and +06:00 in Bangladesh",
    "EST": "-05:00 in North America and +10:00 in Australia, and often the time of summer, too",
    "PST": "-08:00 in North America and +08:00 in the Philippines, and often the time of summer, too",
    "MST": "-07:00 in North America and +08:00 in Malaysia",
    "AST": "-04:00 in North America and +03:00 in Arabia",
    "AMT": "-04:00 in the Amazon and +04:00 in Armenia",
    "CDT": "-05:00 in North America and -04:00 in Cuba",
    "ECT": "-05:00 in Ecuador and -04:00 in the Caribbean",
    "GST": "+04:00 in the Gulf and -02:00 in South Georgia",
    "SST": "-11:00 in Samoa and +08:00 in Singapore",
    "MSK": "+03:00, and +04:00 from 2011 to 2014",
    "CET": "+01:00, and often the time of summer, +02:00, too",
    "EET": "+02:00, and often the time of summer, +03:00, too",
    "WET": "+00:00, and often the time of summer, +01:00, too",
}


def why_unclear(zone: str) -> str:
    """Why the abbreviation `zone` cannot be read."""
    meaning = _MEANINGS.get(zone.upper())
    return f"the time zone {zone!r} " + (f"has several meanings: {meaning}" if meaning else "is not known")
