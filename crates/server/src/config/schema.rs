//! The published JSON Schema of the configuration, for editors.

use serde_json::Value;

use super::Config;

/// The schema as JSON text, with a line break at its end.
#[must_use]
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    text.push('\n');
    text
}

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Larder configuration".into());
    }
    unwrap_lines(&mut schema);
    schema
}

/// Doc comments are wrapped to the width of the source; descriptions are not.
fn unwrap_lines(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => {
                        *text = text.replace('\n', " ");
                    }
                    _ => unwrap_lines(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}
