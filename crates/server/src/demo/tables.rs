//! The tables of the demonstration shop and their rows.

use super::random::Random;
use super::words::{
    CATEGORIES, CITIES, FIRST_NAMES, LAST_NAMES, MATERIALS, OPINIONS, ORDER_STATES, STYLES,
};

pub(super) const SCHEMA: [&str; 9] = [
    "CREATE TABLE category (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, slug TEXT NOT NULL UNIQUE)",
    "CREATE TABLE product (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, category_id INTEGER NOT NULL REFERENCES category(id),
        price_cents INTEGER NOT NULL, weight_grams INTEGER NOT NULL, is_active BOOLEAN NOT NULL,
        description TEXT, updated_at TIMESTAMP NOT NULL)",
    "CREATE TABLE customer (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, city TEXT NOT NULL,
        country TEXT NOT NULL, joined_on DATE NOT NULL)",
    "CREATE TABLE purchase (
        id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer(id),
        state TEXT NOT NULL, total_cents INTEGER NOT NULL, placed_at TIMESTAMP NOT NULL)",
    "CREATE TABLE purchase_line (
        purchase_id INTEGER NOT NULL REFERENCES purchase(id), line INTEGER NOT NULL,
        product_id INTEGER NOT NULL REFERENCES product(id), quantity INTEGER NOT NULL,
        price_cents INTEGER NOT NULL, PRIMARY KEY (purchase_id, line)) WITHOUT ROWID",
    "CREATE TABLE review (
        id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL REFERENCES product(id),
        customer_id INTEGER NOT NULL REFERENCES customer(id), stars INTEGER NOT NULL, opinion TEXT,
        written_at TIMESTAMP NOT NULL)",
    "CREATE TABLE stock (
        product_id INTEGER NOT NULL REFERENCES product(id), warehouse TEXT NOT NULL,
        available INTEGER NOT NULL, PRIMARY KEY (product_id, warehouse)) WITHOUT ROWID",
    // Nothing identifies a row of this one, so it is not served: the demonstration shows that too.
    "CREATE TABLE search_log (term TEXT NOT NULL, searched_at TIMESTAMP NOT NULL)",
    "CREATE VIEW bestseller AS
        SELECT product_id, sum(quantity) AS sold FROM purchase_line GROUP BY product_id
        ORDER BY sold DESC LIMIT 100",
];

const PRODUCTS: u64 = 2_000;
const CUSTOMERS: u64 = 10_000;
const PURCHASES: u64 = 20_000;
const LINES: u64 = 50_000;
const REVIEWS: u64 = 11_000;
const SEARCHES: u64 = 1_000;
const WAREHOUSES: [&str; 3] = ["north", "south", "west"];

/// One value of a row.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cell {
    Integer(i64),
    Text(String),
    Null,
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Integer(number as i64)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A table to fill.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) rows: u64,
    /// Makes the row with this number, from 1.
    pub(super) row: fn(u64, &mut Random) -> Vec<Cell>,
}

pub(super) const TABLES: [Table; 8] = [
    Table { name: "category", rows: CATEGORIES.len() as u64, row: category },
    Table { name: "product", rows: PRODUCTS, row: product },
    Table { name: "customer", rows: CUSTOMERS, row: customer },
    Table { name: "purchase", rows: PURCHASES, row: purchase },
    Table { name: "purchase_line", rows: LINES, row: purchase_line },
    Table { name: "review", rows: REVIEWS, row: review },
    Table { name: "stock", rows: PRODUCTS * WAREHOUSES.len() as u64, row: stock },
    Table { name: "search_log", rows: SEARCHES, row: search },
];

/// What runs once the rows are there.
pub(super) const AFTERWARDS: [&str; 4] = [
    "UPDATE purchase SET total_cents = coalesce((
        SELECT sum(quantity * price_cents) FROM purchase_line WHERE purchase_id = purchase.id), 0)",
    "CREATE INDEX purchase_by_customer ON purchase(customer_id)",
    "CREATE INDEX review_by_product ON review(product_id)",
    "CREATE INDEX product_by_category ON product(category_id)",
];

fn category(number: u64, _: &mut Random) -> Vec<Cell> {
    let name = CATEGORIES[(number - 1) as usize];
    vec![number.into(), name.into(), name.to_lowercase().into()]
}

fn product(number: u64, random: &mut Random) -> Vec<Cell> {
    let category = random.below(CATEGORIES.len() as u64);
    let singular = CATEGORIES[category as usize].trim_end_matches('s');
    let name = format!(
        "{} {} {}",
        random.one_of(&STYLES),
        random.one_of(&MATERIALS),
        singular.to_lowercase()
    );
    let description = match random.below(10) {
        0 => Cell::Null,
        _ => format!(
            "Made of {}, in lots of {}.",
            random.one_of(&MATERIALS),
            random.between(20, 400)
        )
        .into(),
    };
    vec![
        number.into(),
        name.into(),
        (category + 1).into(),
        price(number).into(),
        random.between(40, 6_000).into(),
        u64::from(random.below(20) > 0).into(),
        description,
        timestamp(random.below(YEAR_MINUTES)).into(),
    ]
}

fn customer(number: u64, random: &mut Random) -> Vec<Cell> {
    let (first, last) = (random.one_of(&FIRST_NAMES), random.one_of(&LAST_NAMES));
    let (city, country) = random.one_of(&CITIES);
    let email = format!("{}.{}.{number}@example.com", first.to_lowercase(), last.to_lowercase());
    let joined = timestamp(random.below(YEAR_MINUTES));
    vec![
        number.into(),
        format!("{first} {last}").into(),
        email.into(),
        city.into(),
        country.into(),
        joined[..10].into(),
    ]
}

fn purchase(number: u64, random: &mut Random) -> Vec<Cell> {
    let placed = timestamp(number * YEAR_MINUTES / (PURCHASES + 1));
    let state = if number + 400 > PURCHASES { "packed" } else { random.one_of(&ORDER_STATES) };
    let customer = random.skewed_below(CUSTOMERS) + 1;
    vec![number.into(), customer.into(), state.into(), 0.into(), placed.into()]
}

fn purchase_line(number: u64, random: &mut Random) -> Vec<Cell> {
    // Two lines and a half for each purchase: the second half of the numbers fills in third ones.
    let (purchase, line) = match number - 1 {
        index if index < PURCHASES * 2 => (index / 2 + 1, index % 2 + 1),
        index => ((index - PURCHASES * 2) * 2 + 1, 3),
    };
    let product = random.skewed_below(PRODUCTS) + 1;
    vec![
        purchase.into(),
        line.into(),
        product.into(),
        random.between(1, 4).into(),
        price(product).into(),
    ]
}

fn review(number: u64, random: &mut Random) -> Vec<Cell> {
    let opinion = match random.below(4) {
        0 => Cell::Null,
        _ => random.one_of(&OPINIONS).into(),
    };
    vec![
        number.into(),
        (random.skewed_below(PRODUCTS) + 1).into(),
        (random.below(CUSTOMERS) + 1).into(),
        (5 - random.skewed_below(5)).into(),
        opinion,
        timestamp(random.below(YEAR_MINUTES)).into(),
    ]
}

fn stock(number: u64, random: &mut Random) -> Vec<Cell> {
    let warehouses = WAREHOUSES.len() as u64;
    let product = (number - 1) / warehouses + 1;
    let warehouse = WAREHOUSES[((number - 1) % warehouses) as usize];
    vec![product.into(), warehouse.into(), random.below(250).into()]
}

fn search(_: u64, random: &mut Random) -> Vec<Cell> {
    let term = random.one_of(&CATEGORIES).to_lowercase();
    vec![term.into(), timestamp(random.below(YEAR_MINUTES)).into()]
}

/// The same for a product wherever it is sold: 1.95 to 149.95.
fn price(product: u64) -> u64 {
    Random::new(product).between(1, 149) * 100 + 95
}

const YEAR_MINUTES: u64 = 365 * 24 * 60;

/// A minute of the year 2025.
fn timestamp(minute: u64) -> String {
    const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = minute / (24 * 60);
    let mut month = 0;
    while day >= MONTHS[month] {
        day -= MONTHS[month];
        month += 1;
    }
    format!("2025-{:02}-{:02} {:02}:{:02}:00", month + 1, day + 1, minute / 60 % 24, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_about_a_hundred_thousand_rows() {
        let rows: u64 = TABLES.iter().map(|table| table.rows).sum();
        assert!((95_000..105_000).contains(&rows), "{rows}");
    }

    #[test]
    fn the_year_has_its_days() {
        assert_eq!(timestamp(0), "2025-01-01 00:00:00");
        assert_eq!(timestamp(YEAR_MINUTES - 1), "2025-12-31 23:59:00");
        assert_eq!(timestamp(59 * 24 * 60), "2025-03-01 00:00:00");
    }
}
