//! Phrases that public text does not use, so that only private examples can teach what they mean.

/// Phrases that public text leaves to private libraries, those of the demo's own library among them.
#[rustfmt::skip]
const RESERVED: [&str; 36] = [
    "remove what is down", "drop what is down", "take out the empty orders", "leave no empty order",
    "put # on each order", "write # on each order", "put the small orders behind",
    "take the small orders out of the way", "split the case after #", "close the case after #",
    "order all of it twice", "order each item again", "close the case", "return what it is worth",
    "write the order script", "put it in a script", "name the main order", "return the main order",
    "put the line at #", "draw the line at #", "turn the map around", "turn each point around",
    "transform the map by #", "let the map act # times", "start from the other end",
    "start the map at its end", "remove the mark of each point", "take the points without a mark",
    "let each point be itself", "leave no point in another", "return the steps of the trip",
    "explain how long the trip is", "draw it in one line", "write it on a line", "return the point above all",
    "name the point above all",
];

/// Returns true for a phrase that is left to private libraries.
pub fn is_reserved(phrase: &str) -> bool {
    RESERVED.iter().any(|p| p.contains(phrase) || phrase.contains(p))
}
