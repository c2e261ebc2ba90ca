"""The word lists behind `text`: closed classes of English words, units, and pairs of opposites. Leaf, no logic.

They are general vocabulary; none was written after looking at a stream that the caches are measured on.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "AUXILIARIES",
    "BOUND_OF",
    "CHANCE",
    "FRESH",
    "HOW",
    "LANGUAGE_WORDS",
    "MONTHS",
    "NEGATIONS",
    "OTHER_NUMBERS",
    "POLES",
    "PROPER",
    "SCALES",
    "SHORT_MONTHS",
    "SMALL",
    "STOP",
    "SUFFIXES",
    "UNITS",
    "UNIT_WORDS",
    "WEEKDAYS",
]


def _listed(words: str) -> list[str]:
    return words.split()


STOP = frozenset(
    _listed("""
    a an the this that these those it its i i'm i've i'd i'll me my mine myself we us our you your yours they them
    their he him his she her is are was were be been being am do does did doing done have has had having can could
    will would shall should may might must what which who whom whose when where why how and or but if then else so
    because as of at by for from in into on onto to with about than over under up out off please pls kindly thanks
    thank hi hello hey there here just also too very really quite some any all there's what's that's how's where's
    who's it's let's tell know want need like get got way ways help show give s t re ve d ll m im ive id whats hows
    not no never none nothing nobody neither nor without cannot don't doesn't didn't isn't aren't wasn't can't won't
    couldn't wouldn't shouldn't haven't hasn't hadn't dont doesnt didnt isnt cant wont""")
)
NEGATIONS = frozenset(
    _listed("""
    not no never none nothing nobody nowhere neither nor without cannot except excluding unless lacking dont doesnt
    didnt isnt arent wasnt werent cant wont couldnt wouldnt shouldnt havent hasnt hadnt aint non unable""")
)
MONTHS = _listed("january february march april may june july august september october november december")
SHORT_MONTHS = _listed("jan feb mar apr jun jul aug sept sep oct nov dec")
WEEKDAYS = _listed("monday tuesday wednesday thursday friday saturday sunday")
UNITS = {
    alias: kind
    for kind, aliases in {
        "%": "% percent percentage",
        "‰": "‰ permille",
        "usd": "$ usd dollar dollars bucks",
        "eur": "€ eur euro euros",
        "gbp": "£ gbp quid",
        "jpy": "¥ jpy yen",
        "inr": "₹ inr rupee rupees",
        "cent": "cent cents",
        "pound": "pound pounds lb lbs",
        "mg": "mg milligram milligrams",
        "g": "g gram grams",
        "kg": "kg kgs kilo kilos kilogram kilograms",
        "ton": "ton tons tonne tonnes",
        "oz": "oz ounce ounces",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "km": "km kms kilometer kilometers kilometre kilometres",
        "in": "in inch inches",
        "ft": "ft foot feet",
        "yd": "yd yard yards",
        "mi": "mi mile miles",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "l liter liters litre litres",
        "gal": "gal gallon gallons",
        "cup": "cup cups",
        "°c": "°c celsius centigrade",
        "°f": "°f fahrenheit",
        "k": "kelvin",
        "°": "° degree degrees deg",
        "ms": "ms millisecond milliseconds",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "day": "d day days",
        "week": "wk week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "bit": "bit bits",
        "b": "byte bytes",
        "kb": "kb kilobyte kilobytes",
        "mb": "mb megabyte megabytes",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "w": "w watt watts",
        "kw": "kw kilowatt kilowatts",
        "kwh": "kwh",
        "mph": "mph",
        "km/h": "km/h kmh kph",
        "hz": "hz hertz",
    }.items()
    for alias in aliases.split()
}
# Alone in a text only whole words mean a unit: 'm', 'in' or 'second' do not.
UNIT_WORDS = {
    alias: kind for alias, kind in UNITS.items() if len(alias) > 2 and alias not in ("second", "sec", "min", "deg")
}
ONES = _listed("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""")
TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
SMALL = {word: n for n, word in enumerate(ONES)} | {word: 10 * n for n, word in enumerate(TENS, 2)}
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SUFFIXES = SCALES | {"k": 10**3, "m": 10**6, "bn": 10**9}
OTHER_NUMBERS = {
    **{word: f"{n}." for n, word in enumerate(_listed("third fourth fifth sixth seventh eighth ninth tenth"), 3)},
    **{"first": "1.", "second": "2.", "dozen": "12", "half": "1/2", "quarter": "1/4"},
    **{"once": "1x", "twice": "2x", "double": "2x", "triple": "3x", "thrice": "3x"},
}
BOUNDS = {
    ">": ("more than", "over", "above", "greater than", "exceeding", "longer than", "older than", "larger than"),
    "<": ("less than", "under", "below", "fewer than", "up to", "shorter than", "younger than", "smaller than"),
    ">=": ("at least", "minimum of", "no less than", "≥"),
    "<=": ("at most", "maximum of", "no more than", "≤"),
    "~": ("about", "around", "approximately", "roughly", "nearly", "almost"),
    "=": ("exactly",),
}
BOUND_OF = {phrase: sign for sign, phrases in BOUNDS.items() for phrase in phrases}
_AXES = """
    more/less,fewer higher,high/lower,low larger,bigger,big,large/smaller,small,little longer,long/shorter,short
    faster,fast/slower,slow older,old/younger,newer,new,young better,good/worse,bad best/worst most/least
    highest,maximum,max,largest,biggest/lowest,minimum,min,smallest hottest,hot,warm/coldest,cold,cool
    earliest,early/latest,late before,prior,until/after,since above,over/below,under
    increase,raise,grow,rise,boost/decrease,reduce,lower,shrink,fall,drop,cut enable,activate/disable,deactivate
    allow,permit/deny,forbid,block,ban start,begin,launch/stop,end,quit open/close,shut include/exclude,omit
    add,insert,attach/remove,delete,detach install/uninstall lock/unlock encrypt/decrypt encode/decode
    compress/decompress import/export upload/download buy,purchase/sell send/receive push/pull
    accept,approve/reject,decline win,gain/lose,loss borrow/lend deposit/withdraw,withdrawal debit/credit
    legal,lawful/illegal,unlawful safe/unsafe,dangerous possible/impossible inside,indoor/outside,outdoor left/right
    north/south east/west up/down forward/backward first/last ascending/descending
    pros,advantage,benefit/cons,disadvantage,drawback cause/effect with/without input/output public/private
    true/false positive/negative odd/even multiply/divide plus,sum/minus,difference all,every,each/some,any,none
    import/export employer/employee parent/child husband/wife male/female arrive,arrival/depart,departure hire/fire
    merge/split show/hide connect/disconnect subscribe/unsubscribe freeze/thaw,unfreeze wet/dry hard/soft,easy
    expensive/cheap rich/poor full/empty same/different
"""


def _poles() -> Iterator[tuple[str, str]]:
    for axis in reversed(_AXES.split()):
        one, other = axis.split("/")
        name = one.split(",")[0]
        yield from ((word, f"+{name}") for word in one.split(","))
        yield from ((word, f"-{name}") for word in other.split(","))


POLES = dict(_poles())

_LANGUAGES = {
    "en": "the is are what how do does of and to my can i you for with in a",
    "de": "der die das und ist nicht wie ich ein eine mit für was kann den von zu wo",
    "fr": "le la les et est une des comment je que pour dans pas quel quelle du vous où ne",
    "es": "el los las y es una cómo como qué que para por mi con del cuál cuánto dónde puedo no",
    "it": "il gli è un una come che per non di sono posso quale dove della cosa mio",
    "pt": "o os as é um uma como que para não do da meu posso qual onde com quanto",
    "nl": "de het een en is hoe ik van niet wat kan mijn voor met waar zijn",
}
# A word that English has too says nothing about another language.
_ENGLISH_TOO = STOP | frozenset(_listed("die come van per den dove made sole son pour are hat"))
LANGUAGE_WORDS = {
    name: frozenset(_listed(listed)) - (frozenset() if name == "en" else _ENGLISH_TOO)
    for name, listed in _LANGUAGES.items()
}
# Read in lower case too: people write them so, and an answer in another language is another answer.
PROPER = frozenset(
    _listed("""
    english french german spanish italian portuguese dutch russian chinese japanese korean arabic hindi polish
    turkish swedish greek latin hebrew""")
)
# What follows 'how' in a question of its own kind; the words that begin a question of yes or no.
HOW = frozenset(_listed("many much long often far old tall fast big soon late early high deep heavy large"))
AUXILIARIES = frozenset(_listed("is are was were do does did can could will would should may might must has have am"))
# What goes stale or asks for chance: an earlier answer is no answer.
FRESH = frozenset(
    _listed("""
    today today's tonight now currently current latest newest recent recently yesterday tomorrow nowadays
    trending upcoming""")
)
CHANCE = frozenset(_listed("another random randomly surprise again shuffle regenerate retry reroll dice"))
