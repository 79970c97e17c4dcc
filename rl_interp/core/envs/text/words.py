"""The words that the grammars write with: common ones, so that each is one token of usual models."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Mary John Tom James Dan Martin Amy Scott Alex Anna Paul Sarah Mark Emma Kevin Laura Brian Jane Peter "
    "Alice Adam Kate David Lisa Robert Julia Frank Helen George Susan Henry Rachel"
)
PLACES = _words("store garden school park station house office restaurant library market beach hospital")
THINGS = _words("ring kiss bone basket computer necklace drink snack book ball card letter")
EVENTS = _words("war siege journey project dynasty reign conflict voyage strike rebellion expedition drought")
ARGUMENTS = _words(
    "path file line size name color index value key data text order state model image list user mode page "
    "host port date time type node table field group event style"
)
FUNCTIONS = _words("load save read draw parse send open close merge find")
DESCRIPTIONS = _words("new old first last main local common simple second final")

ANIMALS = _words("cat dog fox bear mouse bird frog rabbit duck horse pig owl cow goat hen lion wolf bee ant fish")
PEOPLE = _words("Lily Ben Mia Sam Zoe Max Ella Leo Ruby Jack Nora Tim Anna Tom Sue Bob Amy Dan Ivy Joe")
TOYS = _words("ball kite book hat cup box drum boat doll bell coat lamp ring shoe stone stick basket flower")
SPOTS = _words("garden forest river house hill barn school park lake kitchen market bridge tower field beach")
COLORS = _words("red blue green yellow white black brown pink gray golden")
MOODS = _words("happy sad proud tired brave shy angry calm hungry sleepy scared glad")
SIZES = _words("big small tiny old new round long soft fat thin kind funny")
FOODS = _words("bread soup cake milk apples honey cheese berries rice nuts pears jam")
WEATHER = _words("sunny rainy windy cold warm snowy foggy quiet")
