"""A small set of tasks that needs no download: facts, word kinds, grammar, arithmetic, records, functions.

They are made from the tables below by fixed rules, so every installation has the same items under the same hashes.
They show whether an instrument works and whether a general student lost its footing; they are no substitute for tasks
from the domain that a student is meant for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from limbeck.errors import TaskError
from limbeck.validate.tasks import Task, make_task, parse_settings

Line = Mapping[str, Any]

_CAPITALS = """
Africa: Algeria=Algiers Angola=Luanda Botswana=Gaborone Chad=N'Djamena Egypt=Cairo Eritrea=Asmara Ethiopia=Addis_Ababa
Ghana=Accra Kenya=Nairobi Liberia=Monrovia Libya=Tripoli Madagascar=Antananarivo Mali=Bamako Morocco=Rabat
Mozambique=Maputo Namibia=Windhoek Niger=Niamey Nigeria=Abuja Rwanda=Kigali Senegal=Dakar Somalia=Mogadishu
Sudan=Khartoum Tunisia=Tunis Uganda=Kampala Zambia=Lusaka Zimbabwe=Harare
Americas: Argentina=Buenos_Aires Brazil=Brasília Canada=Ottawa Chile=Santiago Colombia=Bogotá Cuba=Havana Ecuador=Quito
Guatemala=Guatemala_City Haiti=Port-au-Prince Honduras=Tegucigalpa Jamaica=Kingston Mexico=Mexico_City Nicaragua=Managua
Panama=Panama_City Paraguay=Asunción Peru=Lima Uruguay=Montevideo Venezuela=Caracas
Asia: Afghanistan=Kabul Bangladesh=Dhaka Cambodia=Phnom_Penh China=Beijing India=New_Delhi Indonesia=Jakarta Iran=Tehran
Iraq=Baghdad Israel=Jerusalem Japan=Tokyo Jordan=Amman Laos=Vientiane Lebanon=Beirut Malaysia=Kuala_Lumpur
Mongolia=Ulaanbaatar Nepal=Kathmandu Oman=Muscat Pakistan=Islamabad Philippines=Manila Qatar=Doha Saudi_Arabia=Riyadh
South_Korea=Seoul Syria=Damascus Taiwan=Taipei Thailand=Bangkok Uzbekistan=Tashkent Vietnam=Hanoi Yemen=Sanaa
Europe: Albania=Tirana Austria=Vienna Belarus=Minsk Belgium=Brussels Bulgaria=Sofia Croatia=Zagreb Cyprus=Nicosia
Denmark=Copenhagen Estonia=Tallinn Finland=Helsinki France=Paris Germany=Berlin Greece=Athens Hungary=Budapest
Iceland=Reykjavik Ireland=Dublin Italy=Rome Latvia=Riga Lithuania=Vilnius Malta=Valletta Moldova=Chișinău Norway=Oslo
Poland=Warsaw Portugal=Lisbon Romania=Bucharest Russia=Moscow Serbia=Belgrade Slovakia=Bratislava Slovenia=Ljubljana
Spain=Madrid Sweden=Stockholm Switzerland=Bern Turkey=Ankara Ukraine=Kyiv
"""
_KINDS = """
fish: salmon trout herring cod tuna carp pike mackerel halibut sardine haddock eel
bird: sparrow eagle owl robin heron swallow pelican falcon woodpecker finch stork magpie
tree: oak birch willow maple pine spruce beech elm poplar cedar chestnut sycamore
fruit: pear cherry plum apricot mango peach raspberry grape lemon banana fig melon
vegetable: carrot spinach cabbage onion turnip leek broccoli celery radish cauliflower parsnip asparagus
tool: hammer chisel wrench pliers screwdriver saw axe file rake spade drill mallet
garment: jacket trousers scarf sweater skirt glove coat shirt sock blouse cardigan dress
vehicle: truck bicycle tram motorcycle bus lorry tractor ambulance train taxi scooter van
profession: baker nurse carpenter lawyer plumber teacher farmer surgeon mason tailor butcher journalist
disease: measles cholera malaria influenza pneumonia tuberculosis diabetes asthma scurvy leprosy smallpox polio
metal: copper iron silver tin lead zinc nickel aluminium tungsten platinum cobalt mercury
instrument: violin trumpet flute cello clarinet harp drum oboe guitar trombone bassoon piano
"""
_NOUNS = """
dog=dogs teacher=teachers river=rivers picture=pictures farmer=farmers letter=letters window=windows child=children
woman=women sailor=sailors bridge=bridges king=kings story=stories machine=machines lawyer=lawyers tree=trees
house=houses horse=horses bottle=bottles singer=singers station=stations village=villages painter=painters flower=flowers
mountain=mountains student=students wheel=wheels officer=officers lamp=lamps answer=answers chair=chairs knife=knives
lady=ladies city=cities mouse=mice baker=bakers uncle=uncles ship=ships clock=clocks island=islands
"""
_NEAR = "garden=gardens kitchen=kitchens doctor=doctors road=roads book=books tower=towers"
_LINKS = ("near the", "behind the", "beside the", "across from the")
_PEOPLE = (
    *("Anna", "Boris", "Chandra", "Diego", "Edith", "Farid", "Greta", "Hugo", "Ines", "Jonas"),
    *("Kenji", "Leila", "Marta", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Stefan", "Tomoko"),
)
_TOWNS = ("Bergen", "Cadiz", "Dover", "Ghent", "Kyoto", "Leeds", "Lyon", "Porto", "Tartu", "Turin")
_FUNCTIONS = (
    ("double(x)", "returns twice x", "assert double(4) == 8 and double(-1) == -2"),
    (
        "is_even(n)",
        "returns whether n is even",
        "assert is_even(4) is True and is_even(7) is False",
    ),
    ("largest(xs)", "returns the largest number of a list", "assert largest([3, 9, 2]) == 9"),
    ("total(xs)", "returns the sum of a list", "assert total([1, 2, 3]) == 6 and total([]) == 0"),
    ("count_vowels(s)", "counts the vowels of a string", "assert count_vowels('banana') == 3"),
    ("reverse(s)", "returns a string backwards", "assert reverse('abc') == 'cba'"),
    (
        "is_palindrome(s)",
        "tells whether s reads the same backwards",
        "assert is_palindrome('level') and not is_palindrome('ab')",
    ),
    ("factorial(n)", "returns n!", "assert factorial(5) == 120 and factorial(0) == 1"),
    (
        "fibonacci(n)",
        "returns the n-th Fibonacci number, fibonacci(0) being 0",
        "assert [fibonacci(i) for i in range(7)] == [0, 1, 1, 2, 3, 5, 8]",
    ),
    ("area(w, h)", "returns the area of a rectangle", "assert area(3, 4) == 12"),
    ("average(xs)", "returns the mean of a list", "assert average([2, 4]) == 3"),
    ("absolute(x)", "returns the absolute value", "assert absolute(-3) == 3 and absolute(2) == 2"),
    ("words(s)", "counts the words of a sentence", "assert words('one two  three') == 3"),
    (
        "unique(xs)",
        "returns the elements of a list once each, in order",
        "assert unique([1, 2, 1, 3]) == [1, 2, 3]",
    ),
    (
        "celsius(f)",
        "turns degrees Fahrenheit into Celsius",
        "assert abs(celsius(212) - 100) < 1e-9",
    ),
    ("gcd(a, b)", "returns the greatest common divisor", "assert gcd(12, 18) == 6"),
    (
        "is_prime(n)",
        "tells whether n is prime",
        "assert is_prime(13) and not is_prime(15) and not is_prime(1)",
    ),
    ("initials(s)", "returns the initials of a name", "assert initials('Ada Byron King') == 'ABK'"),
    (
        "clamp(x, low, high)",
        "returns x kept between low and high",
        "assert clamp(9, 0, 5) == 5 and clamp(-2, 0, 5) == 0",
    ),
    (
        "flatten(xss)",
        "joins a list of lists into one list",
        "assert flatten([[1], [2, 3]]) == [1, 2, 3]",
    ),
)


def _pairs(table: str) -> Iterator[tuple[str, str, str]]:
    """Yield (group, left, right) of a table; underscores are spaces."""
    group = ""
    for word in table.split():
        if word.endswith(":"):
            group = word[:-1]
            continue
        left, _, right = word.partition("=")
        yield group, left.replace("_", " "), right.replace("_", " ")


def _capitals() -> Iterator[Line]:
    rng = np.random.default_rng(1)
    table = list(_pairs(_CAPITALS))
    for group, country, capital in table:
        others = [c for g, _, c in table if g == group and c != capital]
        wrong = [others[i] for i in rng.choice(len(others), 3, replace=False)]
        yield {"id": country, "country": country, "choices": [*wrong, capital], "answer": capital}


def _kinds() -> Iterator[Line]:
    rng = np.random.default_rng(2)
    kinds = [line.partition(": ") for line in _KINDS.strip().splitlines()]
    names = [kind for kind, _, _ in kinds]
    for kind, _, words in kinds:
        others = [n for n in names if n != kind]
        for word in words.split():
            wrong = [others[i] for i in rng.choice(len(others), 3, replace=False)]
            yield {"id": word, "word": word, "choices": [*wrong, kind], "answer": kind}


def _agreement() -> Iterator[Line]:
    """Subject and verb with a noun of the other number between them; sentences of one subject share their luck."""
    rng = np.random.default_rng(3)
    near = list(_pairs(_NEAR))
    for _, single, plural in _pairs(_NOUNS):
        for number in range(12):
            many = number % 2 == 1
            _, one_near, many_near = near[int(rng.integers(len(near)))]
            between = f"{_LINKS[number // 2 % len(_LINKS)]} {one_near if many else many_near}"
            subject = plural if many else single
            yield {
                "id": f"{subject} {number}",
                "start": f"The {subject} {between}",
                "answer": "are" if many else "is",
                "subject": single,
            }


def _arithmetic() -> Iterator[Line]:
    rng = np.random.default_rng(4)
    seen: set[str] = set()
    while len(seen) < 300:
        a, b = int(rng.integers(1, 60)), int(rng.integers(1, 40))
        plus = bool(rng.integers(2))
        left, right = (a, b) if plus else (max(a, b), min(a, b))
        sum_ = f"{left} {'+' if plus else '-'} {right}"
        if sum_ in seen:
            continue
        seen.add(sum_)
        value = left + right if plus else left - right
        near = [
            v
            for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10)
            if v >= 0
        ]
        wrong = [near[i] for i in rng.choice(len(near), 3, replace=False)]
        yield {
            "id": sum_,
            "sum": sum_,
            "choices": [str(w) for w in (*wrong, value)],
            "answer": str(value),
        }


def _sums() -> Iterator[Line]:
    for line in list(_arithmetic())[:100]:
        yield {"id": line["id"], "sum": line["sum"], "answer": line["answer"]}


def _records() -> Iterator[Line]:
    rng = np.random.default_rng(5)
    for number, name in enumerate(_PEOPLE * 3):
        age, town = int(rng.integers(18, 90)), _TOWNS[int(rng.integers(len(_TOWNS)))]
        yield {
            "id": str(number),
            "sentence": f"{name} is {age} years old and lives in {town}.",
            "answer": {"name": name, "age": age, "town": town},
        }


def _functions() -> Iterator[Line]:
    for signature, does, tests in _FUNCTIONS:
        yield {"id": signature, "signature": signature, "does": does, "answer": tests}


_CHOICE = {
    "scorer": "choice",
    "choices_field": "choices",
    "choice_prefix": " ",
    "id": "id",
    "file": "-",
}
_RECORD_SCHEMA = {
    "type": "object",
    "required": ["name", "age", "town"],
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "town": {"type": "string"},
    },
}
_TASKS: Mapping[str, tuple[dict[str, Any], Callable[[], Iterator[Line]]]] = {
    "capitals": (
        {
            **_CHOICE,
            "about": "Capitals of countries, against three others of the continent.",
            "prompt": "The capital of {country} is",
            "chance": 0.25,
        },
        _capitals,
    ),
    "kinds": (
        {
            **_CHOICE,
            "about": "What kind of thing a word names, of four.",
            "prompt": "A {word} is a kind of",
            "chance": 0.25,
        },
        _kinds,
    ),
    "agreement": (
        {
            "scorer": "choice",
            "choices": [" is", " are"],
            "choice_prefix": "",
            "labels": {"is": " is", "are": " are"},
            "id": "id",
            "file": "-",
            "about": "Number of the verb, with a noun of the other number before it; clustered by subject.",
            "prompt": "{start}",
            "cluster": "subject",
            "chance": 0.5,
        },
        _agreement,
    ),
    "arithmetic": (
        {
            **_CHOICE,
            "about": "Sums and differences up to 100, against near misses.",
            "prompt": "3 + 4 = 7, 12 - 5 = 7, {sum} =",
            "chance": 0.25,
        },
        _arithmetic,
    ),
    "sums": (
        {
            "scorer": "numeric",
            "id": "id",
            "file": "-",
            "about": "The same sums, written out.",
            "prompt": "What is {sum}? Answer with the number.",
            "chance": 0.0,
            "max_new_tokens": 32,
        },
        _sums,
    ),
    "records": (
        {
            "scorer": "json_schema",
            "json_schema": _RECORD_SCHEMA,
            "id": "id",
            "file": "-",
            "about": "A sentence turned into a JSON object with the right values.",
            "prompt": "{sentence}\nWrite this as a JSON object with the keys name, age and town.",
            "chance": 0.0,
            "max_new_tokens": 64,
        },
        _records,
    ),
    "functions": (
        {
            "scorer": "unit_tests",
            "id": "id",
            "file": "-",
            "about": "Twenty small Python functions, run against their tests in a cell.",
            "prompt": "Write a Python function {signature} that {does}. Give the code alone.",
            "chance": 0.0,
            "max_new_tokens": 160,
        },
        _functions,
    ),
}
NAMES = tuple(_TASKS)
"""Names of the built-in tasks."""
DEFAULT = ("capitals", "kinds", "agreement", "arithmetic")
"""Those that a validation takes when none is named: all by likelihood, so that they are quick."""


def builtin(name: str, *, limit: int | None = None) -> Task:
    """Return a built-in task.

    Args:
        name: One of `NAMES`.
        limit: Items at the most; None takes all.

    Raises:
        TaskError: There is none of that name.
    """
    if name not in _TASKS:
        raise TaskError(f"no built-in task {name!r}; there are {', '.join(NAMES)}")
    settings, lines = _TASKS[name]
    parsed = parse_settings({"name": name, **settings}, name)
    numbered = ((f"{name} item {i}", line) for i, line in enumerate(lines(), 1))
    return make_task(parsed, numbered, f"built-in task {name}", limit=limit)


def about(name: str) -> str:
    """Return what a built-in task shows, in one sentence."""
    return str(_TASKS[name][0]["about"])
