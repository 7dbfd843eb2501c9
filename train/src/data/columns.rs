//! Other names for the columns of rows: `instruction=prompt,output=completion`.

use super::keys;
use super::value::{listed, quoted};
use codelsi_engine::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The columns of a file that are read as keys of a row; the others keep their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<(&'static str, String)>);

impl FromStr for Columns {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut columns = Columns::default();
        for pair in text.split(',') {
            let Some((key, column)) = pair.split_once('=').filter(|(_, column)| !column.is_empty()) else {
                return Err(Error::new(format!("{} is no KEY=COLUMN", quoted(pair))));
            };
            let Some(key) = keys::all().find(|known| *known == key) else {
                let known: BTreeSet<&str> = keys::all().collect();
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                return Err(Error::new(format!("{} is no key of a row; these are: {known}", quoted(key))));
            };
            if columns.0.iter().any(|(other, name)| *other == key || name == column) {
                return Err(Error::new(format!("{} names a key or a column twice", quoted(pair))));
            }
            columns.0.push((key, column.to_owned()));
        }
        Ok(columns)
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(key, column)| format!("{key}={column}")).collect();
        f.write_str(&pairs.join(","))
    }
}

impl Columns {
    /// Returns true if all columns keep their names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if a column is read as this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(mapped, _)| *mapped == key)
    }

    /// Checks that rows have every column that is named.
    ///
    /// # Errors
    /// Names the first that none of them has, and the columns that they have.
    pub(super) fn check<'a>(
        &self,
        rows: impl Iterator<Item = &'a Map<String, Value>> + Clone,
    ) -> Result<(), String> {
        let lacks = |column: &str| !rows.clone().any(|row| row.contains_key(column));
        let Some((key, column)) = self.0.iter().find(|(_, column)| lacks(column)) else { return Ok(()) };
        let there: BTreeSet<&str> = rows.flat_map(|row| row.keys().map(String::as_str)).collect();
        let there = listed(there.into_iter().map(|name| (name, String::new())));
        Err(format!("no column {} for `{key}`; the columns are {there}", quoted(column)))
    }

    /// Gives the columns of a row the names of their keys. Returns the other columns that had such a name and a value, which are
    /// not read.
    pub(super) fn rename(&self, row: &mut Map<String, Value>) -> Vec<String> {
        let values: Vec<Option<Value>> = self.0.iter().map(|(_, column)| row.shift_remove(column)).collect();
        let mut unread = Vec::new();
        for ((key, _), value) in self.0.iter().zip(values) {
            unread.extend(row.shift_remove(*key).filter(|other| !other.is_null()).map(|_| key.to_string()));
            row.extend(value.map(|value| (key.to_string(), value)));
        }
        unread
    }
}
