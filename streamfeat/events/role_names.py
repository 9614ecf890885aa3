"""The names under which columns usually stand, for each role.

Names are in lower case, without all characters but letters and digits: `My Rating` is `myrating`. docs/reading.md
states the rules; `roles.py` applies them.
"""

import re

# Names of identifiers. They are taken before labels, because two users or films may have one name.
IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "user": (
        "userid", "useridx", "uid", "userkey", "userhash", "usersk", "memberid", "accountid", "profileid", "customerid",
        "clientid", "visitorid", "reviewerid", "viewerid", "listenerid", "readerid", "playerid", "subscriberid",
        "personid", "steamid", "authorsteamid",
    ),
    "item": (
        "itemid", "iid", "itemidx", "itemkey", "movieid", "filmid", "animeid", "mangaid", "mediaid", "parentasin",
        "asin", "productid", "bookid", "isbn", "gameid", "appid", "trackid", "songid", "videoid", "episodeid", "showid",
        "seriesid", "artistid", "albumid", "contentid", "articleid", "newsid", "storyid", "recipeid", "businessid",
        "venueid", "locationid", "poiid", "jokeid", "beerid", "beerbeerid", "restaurantid", "hotelid", "courseid",
        "podcastid", "trackuri", "spotifytrackuri", "sku", "titleid", "workid", "imdbid", "tmdbid", "tconst", "const",
        "animeuid", "placeid", "bookuid", "gameuid", "movieuid",
    ),
}  # fmt: skip

LABELS: dict[str, tuple[str, ...]] = {
    "user": (
        "user", "username", "userlogin", "login", "nickname", "member", "membername", "profile", "profilename",
        "reviewprofilename", "customer", "visitor", "reviewer", "reviewername", "viewer", "listener", "player",
    ),
    "item": (
        "item", "movie", "film", "anime", "manga", "book", "game", "track", "trackname", "song", "songname", "video",
        "episode", "show", "series", "product", "business", "article", "recipe", "venue", "artist", "artistname",
        "album",
    ),
}  # fmt: skip

# Names of times in the order in which they are taken: the moment of the act, a moment, the last change of the row, the
# making of the row.
TIMES: tuple[tuple[str, ...], ...] = (
    (
        "watchedat", "viewedat", "listenedat", "playedat", "readat", "ratedat", "reviewedat", "visitedat", "clickedat",
        "purchasedat", "orderedat", "streamedat", "consumedat", "watcheddate", "dateread", "daterated", "dateplayed",
        "datewatched", "eventtime", "eventtimestamp", "eventdate", "actiontime", "interactiontime", "checkintime",
        "unixreviewtime", "reviewtime", "reviewtimestamp", "reviewdate", "ratingtimestamp", "ratingtime", "ratingdate",
        "purchasetime", "purchasedate", "ordertime", "orderdate", "transactiontime", "transactiondate", "tdat",
        "endtime", "watchedon", "viewedon", "playedon", "readon", "ratedon", "dateviewed", "clicktime", "visittime",
        "listeneddate", "interactiondate", "startedat", "starttime", "finishedat",
    ),
    (
        "timestamp", "time", "ts", "datetime", "timems", "timestampms", "date", "unixseconds", "unixtime",
        "unixtimestamp", "uts", "epoch", "epochms", "utctime", "timeutc", "utctimestamp", "timestamputc", "eventts",
    ),
    ("updatedat", "lastupdated", "mylastupdated", "lastmodified", "modifiedat", "changedat", "updated", "progressedat",
     "timestampupdated", "dateupdated", "datemodified", "updatedate"),
    ("createdat", "created", "creationtime", "createtime", "createddate", "dateadded", "addedat", "insertedat",
     "timestampcreated"),
)  # fmt: skip

# Role → names, in the order in which they are taken.
NAMES: dict[str, tuple[str, ...]] = {
    "user": (*IDENTIFIERS["user"], *LABELS["user"]),
    "item": (*IDENTIFIERS["item"], *LABELS["item"]),
    "timestamp": tuple(name for names in TIMES for name in names),
    "medium": ("medium", "media", "mediatype"),
    "rating": (
        "rating", "userrating", "myrating", "yourrating", "myscore", "userscore", "score", "stars", "starrating",
        "overall", "overallrating", "itemrating", "movierating", "bookrating", "animerating",
        "reviewoverall", "reviewrating", "reviewscore", "ratingtwenty", "grade",
    ),
    "status": ("status", "watchstatus", "watchingstatus", "mystatus", "readingstatus", "liststatus", "exclusiveshelf"),
    "completion": (
        "completion", "progress", "completionrate", "percentcomplete", "percentwatched", "watchedpercent",
        "mywatchedepisodes", "watchedepisodes", "episodeswatched", "numepisodeswatched", "numwatchedepisodes",
        "watchedepisodescount", "myreadchapters", "readchapters", "chaptersread", "numchaptersread", "pagesread",
    ),
    "total": (),  # found by its values, beside a completion: see completions.py
    "title": (
        "title", "itemtitle", "movietitle", "filmtitle", "booktitle", "animetitle", "gametitle", "producttitle",
        "itemname", "moviename", "productname", "movie", "film", "anime", "manga", "book", "game", "track", "trackname",
        "song", "songname", "video", "article", "recipe",
    ),
}  # fmt: skip

_LIKE_PROGRESS = re.compile(
    "(watched|viewed|listened|played|read|elapsed|consumed)(.*(seconds|secs?|minutes|mins?|hours|ms|time|duration|length|pages|ratio))"
    "|(watch|view|listen|play|read)(ing)?(seconds|secs|minutes|mins|hours|ms|time|duration|length|ratio)|progress"
)
_LIKE_TOTAL = re.compile("(duration|length|runtime|total)(ms|s|seconds|secs?|minutes|mins?|hours)?$")
_LIKE_RATING = re.compile("rating|score|stars|grade|overall")


def plain(name: str) -> str:
    """`name` in lower case, without all characters but letters and digits, and without the types of MongoDB's exports
    (`user_id.$numberLong`)."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"(\.\$[A-Za-z]+)+$", "", name).lower())


def is_like_rating(name: str) -> bool:
    """Whether the column `name` is called like a rating."""
    return bool(_LIKE_RATING.search(plain(name)))


def is_like_progress(name: str) -> bool:
    """Whether the column `name` is called like an amount that was watched, played or read."""
    return bool(_LIKE_PROGRESS.search(plain(name)))


def is_like_total(name: str) -> bool:
    """Whether the column `name` is called like the length of an item."""
    return bool(_LIKE_TOTAL.search(plain(name)))
