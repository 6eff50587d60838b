//! What a page shows.

use serde::Serialize;

/// A report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// What it is about.
    pub title: String,
    /// What kind of report it is.
    pub kind: String,
    /// The outcome in a word, if there is one.
    pub outcome: Option<Cell>,
    /// What it says, in a sentence or two.
    pub lead: String,
    /// What has to be read first.
    pub notes: Vec<Note>,
    /// The rest.
    pub sections: Vec<Section>,
    /// What made it.
    pub program: String,
}

/// A remark.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Note {
    /// Its beginning, set in bold.
    pub strong: String,
    /// The rest.
    pub text: String,
}

impl Note {
    /// A remark whose beginning may stand between double asterisks.
    pub fn new(text: &str) -> Self {
        let parts = text
            .strip_prefix("**")
            .and_then(|rest| rest.split_once("**"));
        let (strong, text) = parts.unwrap_or(("", text));
        Self {
            strong: strong.to_owned(),
            text: text.to_owned(),
        }
    }
}

/// A part of a page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Section {
    /// For links.
    pub id: String,
    /// What stands above it.
    pub heading: String,
    /// What it says.
    pub text: String,
    /// Names and values.
    pub facts: Vec<Fact>,
    /// Which segments were looked at.
    pub strip: Option<Strip>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Tables.
    pub tables: Vec<Table>,
}

/// A name and a value.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    /// What.
    pub label: String,
    /// The value.
    pub value: String,
    /// Whether it is a digest or a key, set in type of one width.
    pub code: bool,
}

impl Fact {
    /// A value in words or numbers.
    pub fn new(label: &str, value: impl Into<String>) -> Self {
        Self {
            label: label.to_owned(),
            value: value.into(),
            code: false,
        }
    }

    /// A digest or a key.
    pub fn code(label: &str, value: impl Into<String>) -> Self {
        Self {
            code: true,
            ..Self::new(label, value)
        }
    }
}

/// How something turned out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// It says nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// It could not be told.
    Unsure,
}

/// A text that turned out somehow.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// How it turned out.
    pub tone: Tone,
}

impl Cell {
    /// A text that says nothing about an outcome.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

/// A table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// What stands above the columns; numbers are set to the right.
    pub columns: Vec<(String, bool)>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// Which segments of a training were replayed, in as many bins as fit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Strip {
    /// In words.
    pub caption: String,
    /// How each bin turned out; plain ones were not looked at.
    pub bins: Vec<Tone>,
}

/// A figure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figure {
    /// For links and file names.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it shows.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Axis {
    /// Its name, with its unit.
    pub label: String,
    /// Whether it is logarithmic.
    pub log: bool,
}

/// A line of a figure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// Its name.
    pub label: String,
    /// How it is drawn.
    pub style: Style,
    /// Its points, ascending by `x`. Points that an axis cannot show are left out of the drawing and
    /// stay in the table.
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// A line with points.
    #[default]
    Line,
    /// A line alone.
    Curve,
    /// A bound.
    Dashed,
}
