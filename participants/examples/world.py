"""The world the orders come from: what is on the shelves, who buys, with which cards, and who carries.

Read by `make_orders.py` (which writes orders that this world can, or can't, fulfil) and by each service,
which seeds its own database from its part. The same on every machine: drawn from one fixed seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache

from examples.contracts import Address

SEED = 2025
"""Decides names, streets and cards. Another seed is another world: orders.jsonl has to be made again."""

CUSTOMERS = 320

OPENED_AT = datetime(2025, 11, 3, 8, 0, tzinfo=UTC)
"""When the first order was placed. Cards expire relative to this, not to today's date."""


@dataclass(frozen=True, slots=True)
class Article:
    """Something the warehouse keeps."""

    sku: str
    name: str
    weight_grams: int
    price: Decimal
    stock: int
    """Pieces on the shelf before the first order."""

    @property
    def is_rare(self) -> bool:
        """Whether more of it is ordered than there is."""
        return self.stock < PLENTY


@dataclass(frozen=True, slots=True)
class Card:
    """A customer's card, as the payments service knows it."""

    token: str
    customer: str
    credit_limit: Decimal
    expires: date
    """The last day on which it is good."""
    blocked: bool = False

    @property
    def kind(self) -> str:
        """Says what the card is good for: good, blocked, expired, small or voucher."""
        if self.blocked:
            return "blocked"
        if self.expires < OPENED_AT.date():
            return "expired"
        return {SMALL_LIMIT: "small", VOUCHER_LIMIT: "voucher"}.get(self.credit_limit, "good")


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who orders."""

    id: str
    address: Address
    card: Card


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a carrier takes to a country, up to which weight, and for how much."""

    carrier: str
    country: str
    max_weight_grams: int
    base_price: Decimal
    price_per_kg: Decimal

    def price(self, weight_grams: int) -> Decimal:
        """Gives the price of one parcel."""
        kilos = -(-weight_grams // 1000)
        return self.base_price + self.price_per_kg * kilos


@dataclass(frozen=True, slots=True)
class World:
    """Everything there is before the first order."""

    articles: tuple[Article, ...]
    customers: tuple[Customer, ...]
    tariffs: tuple[Tariff, ...]

    def article(self, sku: str) -> Article:
        """Gives an article by its number."""
        return next(article for article in self.articles if article.sku == sku)

    def cheapest(self, country: str, weight_grams: int) -> tuple[Tariff, Decimal] | None:
        """Gives the tariff that a parcel would go by and its price, or None if nobody carries it."""
        offers = [
            (each.price(weight_grams), each.carrier, each)
            for each in self.tariffs
            if each.country == country and weight_grams <= each.max_weight_grams
        ]
        if not offers:
            return None
        price, _, tariff = min(offers, key=lambda offer: offer[:2])
        return tariff, price


PLENTY = 20_000
"""Pieces of an ordinary article: more than all orders together want."""

GOOD_LIMIT = Decimal("25000.00")
SMALL_LIMIT = Decimal("15.00")
VOUCHER_LIMIT = Decimal("100.00")
"""A voucher is a card too. Every order on one costs VOUCHER_PRICE, so that it is good for three of them."""
VOUCHER_PRICE = Decimal("30.00")
VOUCHER_ARTICLE = "Ceramic teapot"

ORDINARY = (
    # name, grams, euro
    ("Espresso machine", 9200, "389.00"),
    ("Hand grinder", 780, "64.50"),
    ("Ceramic teapot", 940, "30.00"),
    ("Cast-iron pan", 2650, "54.90"),
    ("Bread knife", 230, "27.80"),
    ("Walnut board", 1480, "41.00"),
    ("Linen apron", 310, "33.20"),
    ("Storage jar", 620, "12.40"),
    ("Salt cellar", 280, "18.90"),
    ("Stock pot", 3100, "88.00"),
    ("Pasta roller", 2400, "72.30"),
    ("Kitchen scale", 890, "36.70"),
    ("Copper kettle", 1350, "119.00"),
    ("Dish rack", 1720, "44.10"),
    ("Desk lamp", 2150, "97.50"),
    ("Reading chair", 14800, "449.00"),
    ("Bookshelf board", 5300, "58.00"),
    ("Wool blanket", 1650, "89.90"),
    ("Feather pillow", 980, "39.00"),
    ("Bed linen", 1420, "79.00"),
    ("Wall clock", 1130, "52.60"),
    ("Picture frame", 760, "23.50"),
    ("Door mat", 2300, "29.90"),
    ("Umbrella stand", 4100, "61.00"),
    ("Garden shears", 690, "31.20"),
    ("Watering can", 1240, "24.80"),
    ("Seed box", 410, "15.60"),
    ("Spade", 2050, "38.40"),
    ("Bird house", 1560, "26.90"),
    ("Fire basket", 11600, "139.00"),
    ("Anvil", 24500, "264.00"),
    ("Bench vice", 8700, "112.00"),
    ("Hammer", 820, "21.70"),
    ("Spirit level", 540, "28.30"),
    ("Tool chest", 6900, "134.00"),
    ("Chisel set", 1280, "66.00"),
    ("Ink bottle", 190, "11.20"),
    ("Fountain pen", 60, "48.00"),
    ("Notebook", 340, "9.80"),
    ("Globe", 1900, "84.00"),
)

RARE = (
    # name, grams, euro, pieces
    ("Signed first edition", 720, "240.00", 14),
    ("Marine chronometer", 1900, "1890.00", 9),
    ("Blue Mauritius print", 130, "75.00", 25),
    ("Numbered lithograph", 480, "310.00", 18),
    ("Meteorite slice", 260, "420.00", 21),
    ("Damascus chef's knife", 340, "365.00", 16),
    ("Vintage typewriter", 5600, "295.00", 12),
    ("Brass sextant", 1450, "530.00", 11),
    ("Silver thimble", 40, "58.00", 30),
    ("Opera glasses", 410, "145.00", 16),
)

CITIES = {
    "DE": (("10437", "Berlin"), ("20359", "Hamburg"), ("50674", "Köln"), ("04109", "Leipzig")),
    "AT": (("1070", "Wien"), ("8010", "Graz")),
    "CH": (("8004", "Zürich"), ("3011", "Bern")),
    "FR": (("75011", "Paris"), ("69001", "Lyon"), ("44000", "Nantes")),
    "NL": (("1015", "Amsterdam"), ("3511", "Utrecht")),
    "BE": (("2000", "Antwerpen"), ("9000", "Gent")),
    "DK": (("1620", "København"), ("8000", "Aarhus")),
    "SE": (("114 35", "Stockholm"), ("411 08", "Göteborg")),
    "NO": (("0182", "Oslo"), ("5003", "Bergen")),
    "FI": (("00100", "Helsinki"),),
    "PL": (("31-042", "Kraków"), ("00-010", "Warszawa")),
    "CZ": (("110 00", "Praha"), ("602 00", "Brno")),
    "IT": (("20121", "Milano"), ("40121", "Bologna"), ("90133", "Palermo")),
    "ES": (("08001", "Barcelona"), ("28004", "Madrid")),
    "PT": (("1200-109", "Lisboa"), ("4000-322", "Porto")),
    "IE": (("D02 AF30", "Dublin"),),
    "GB": (("E1 6AN", "London"), ("EH1 1YZ", "Edinburgh")),
    "US": (("11201", "Brooklyn"), ("97209", "Portland")),
    "CA": (("H2X 1Y4", "Montréal"),),
    "JP": (("150-0001", "Tokyo"),),
}

UNSERVED = {
    "AQ": (("BIQQ 1ZZ", "Rothera Station"),),
    "FK": (("FIQQ 1ZZ", "Stanley"),),
    "GL": (("3900", "Nuuk"),),
    "SH": (("STHL 1ZZ", "Jamestown"),),
    "SJ": (("9173", "Ny-Ålesund"),),
}

TARIFFS = (
    # carrier, countries, grams at most, base price, price per kilogram
    ("Hansa Paket", "DE AT CH NL BE DK", 31_500, "4.90", "0.45"),
    ("Nordpost", "DK SE NO FI", 35_000, "6.50", "0.70"),
    ("Tricolore Colis", "FR BE CH ES IT PT", 30_000, "5.60", "0.60"),
    ("Vistula Kurier", "PL CZ DE AT", 40_000, "4.20", "0.55"),
    ("Island Mail", "GB IE", 30_000, "7.20", "0.80"),
    ("EuroCargo", "DE AT CH FR NL BE DK SE PL CZ IT ES PT", 90_000, "29.00", "0.38"),
    ("AirBridge", "US CA JP GB IE NO FI", 45_000, "24.00", "3.90"),
)

FIRST_NAMES = """
Ada Amir Anneke Beatriz Björn Chiara Clara Daniel Emre Fatou Femke Grace Hanna Hiroshi Ines Ingrid Jakub Joana
Karel Katarzyna Lars Leila Léa Luca Maeve Marek Mateo Mei Nadia Noah Olga Oskar Pilar Ravi Rosa Sanne Sofia
Tomás Ulla Viktor Wiebke Yara Zofia
"""

LAST_NAMES = """
Andersen Bakker Baranova Becker Bianchi Bruun Castro Chen Dubois Eriksen Fischer Fontaine Garcia Hansen Horvat
Ivanova Janssen Kato Keller Kowalska Larsen Lehmann Lindqvist Marini Martin Moreau Murphy Novák Okafor
Oliveira Peeters Petrov Quinn Rossi Santos Schmid Silva Singh Tanaka Virtanen Weber Wójcik Yilmaz Zimmer
"""

STREETS = """
Chestnut Avenue, Garden Row, Harbour Street, Lighthouse Way, Linden Court, Market Square, Mill Lane,
North Quay, Observatory Hill, Old Bridge, Orchard Close, Printer's Alley, River Walk, Station Road,
Weaver's Yard
"""


@cache
def world() -> World:
    """Gives the world; the same one each time."""
    rng = random.Random(SEED)
    articles = [
        Article(f"K-{1000 + 7 * number}", name, grams, Decimal(price), PLENTY)
        for number, (name, grams, price) in enumerate(ORDINARY)
    ]
    articles += [
        Article(f"R-{100 + 13 * number}", name, grams, Decimal(price), pieces)
        for number, (name, grams, price, pieces) in enumerate(RARE)
    ]
    tariffs = [
        Tariff(carrier, country, grams, Decimal(base), Decimal(per_kg))
        for carrier, countries, grams, base, per_kg in TARIFFS
        for country in countries.split()
    ]
    customers = [_customer(rng, number) for number in range(CUSTOMERS)]
    return World(tuple(articles), tuple(customers), tuple(tariffs))


def _customer(rng: random.Random, number: int) -> Customer:
    """Draws one customer. Every twentieth lives where nobody delivers; the other odd ones have odd cards."""
    cities = UNSERVED if number % 20 == 7 else CITIES
    country = rng.choice(sorted(cities))
    postcode, city = rng.choice(cities[country])
    name = f"{rng.choice(FIRST_NAMES.split())} {rng.choice(LAST_NAMES.split())}"
    street = f"{rng.choice(STREETS.split(',')).strip()} {rng.randint(1, 140)}"
    address = Address(name=name, street=street, postcode=postcode, city=city, country=country)
    return Customer(f"c-{number:04}", address, _card(rng, number))


def _card(rng: random.Random, number: int) -> Card:
    token = f"card-{rng.getrandbits(48):012x}"
    customer = f"c-{number:04}"
    good_until = date(2027 + rng.randint(0, 3), rng.randint(1, 12), 28)
    match number % 20:
        case 3:
            return Card(token, customer, GOOD_LIMIT, good_until, blocked=True)
        case 11:
            return Card(token, customer, GOOD_LIMIT, date(2025, rng.randint(1, 10), 28))
        case 15:
            return Card(token, customer, SMALL_LIMIT, good_until)
        case 19:
            return Card(token, customer, VOUCHER_LIMIT, good_until)
        case _:
            return Card(token, customer, GOOD_LIMIT, good_until)
