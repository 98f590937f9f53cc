//! What the demonstration shop sells, to whom.

pub(super) const CATEGORIES: [&str; 24] = [
    "Teapots",
    "Lanterns",
    "Blankets",
    "Notebooks",
    "Pans",
    "Knives",
    "Baskets",
    "Candles",
    "Cushions",
    "Mugs",
    "Clocks",
    "Umbrellas",
    "Backpacks",
    "Scarves",
    "Bowls",
    "Vases",
    "Hammocks",
    "Telescopes",
    "Puzzles",
    "Kites",
    "Brushes",
    "Stools",
    "Lamps",
    "Jars",
];

pub(super) const MATERIALS: [&str; 16] = [
    "oak",
    "walnut",
    "linen",
    "wool",
    "steel",
    "copper",
    "glass",
    "stoneware",
    "bamboo",
    "leather",
    "cotton",
    "brass",
    "cork",
    "slate",
    "porcelain",
    "birch",
];

pub(super) const STYLES: [&str; 20] = [
    "Harbour", "Meadow", "Orchard", "Granite", "Ember", "Drift", "Juniper", "Lowland", "Tundra",
    "Saffron", "Willow", "Cobalt", "Foxglove", "Heather", "Quarry", "Larkspur", "Marsh", "Nettle",
    "Pebble", "Thistle",
];

pub(super) const FIRST_NAMES: [&str; 32] = [
    "Ada", "Bela", "Caro", "Dina", "Edo", "Fenna", "Gil", "Hana", "Ivo", "Jana", "Kai", "Lio",
    "Mara", "Nils", "Oda", "Piet", "Quin", "Rosa", "Sami", "Tove", "Ugo", "Vera", "Wim", "Xenia",
    "Yara", "Zeno", "Anouk", "Bruno", "Cleo", "Dario", "Elin", "Frits",
];

pub(super) const LAST_NAMES: [&str; 32] = [
    "Abel", "Brandt", "Cordes", "Dorn", "Eklund", "Faber", "Grote", "Holm", "Ibsen", "Jansen",
    "Koster", "Lind", "Moretti", "Novak", "Olsen", "Petrov", "Quist", "Rossi", "Sand", "Thorn",
    "Urban", "Visser", "Weber", "Ximenes", "Young", "Zeller", "Aalto", "Berg", "Costa", "Duval",
    "Engel", "Falk",
];

/// City and country.
pub(super) const CITIES: [(&str, &str); 20] = [
    ("Utrecht", "NL"),
    ("Ghent", "BE"),
    ("Aarhus", "DK"),
    ("Turku", "FI"),
    ("Porto", "PT"),
    ("Graz", "AT"),
    ("Lyon", "FR"),
    ("Bologna", "IT"),
    ("Leipzig", "DE"),
    ("Cork", "IE"),
    ("Bergen", "NO"),
    ("Malmö", "SE"),
    ("Kraków", "PL"),
    ("Brno", "CZ"),
    ("Bilbao", "ES"),
    ("Tartu", "EE"),
    ("Basel", "CH"),
    ("Maribor", "SI"),
    ("Kaunas", "LT"),
    ("Split", "HR"),
];

pub(super) const ORDER_STATES: [&str; 6] =
    ["delivered", "delivered", "delivered", "shipped", "packed", "cancelled"];

pub(super) const OPINIONS: [&str; 12] = [
    "Does what it should.",
    "Smaller than I thought, and better.",
    "The third one we have bought.",
    "Arrived with a scratch; replaced within a week.",
    "A present that was used the same evening.",
    "Solid. Heavier than it looks.",
    "The colour differs from the picture.",
    "Would buy again.",
    "Fine for the price.",
    "My favourite thing in the kitchen.",
    "Took two weeks to arrive.",
    "Well packed, well made.",
];
