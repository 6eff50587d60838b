//! Reports of proofs and experiments: one HTML file each, without a remote origin, for people who
//! read, print and cite them.
//!
//! Whatever is shown may come from a hostile proof. All text goes through the template's escaping, data
//! for figures through JSON in which no tag can be closed, and the page's policy lets no script run but
//! the two that are part of it.

mod experiment;
mod page;
mod run;

pub use experiment::experiment;
pub use page::{Axis, Cell, Fact, Figure, Note, Page, Section, Series, Strip, Style, Table, Tone};
pub use run::{Run, run};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{AutoEscape, Environment, context};
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("../assets/report.html");
const STYLE: &str = include_str!("../assets/report.css");
const SCRIPT: &str = include_str!("../assets/report.js");
const UPLOT: &str = include_str!("../assets/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../assets/uplot/uPlot.min.css");
const UPLOT_LICENSE: &str = include_str!("../assets/uplot/LICENSE");

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file that is not what it has to be.
    #[error("{file}: {problem}")]
    Malformed {
        /// Which.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The page cannot be rendered.
    #[error("the page cannot be rendered: {0}")]
    Template(#[from] minijinja::Error),
}

/// The page as HTML.
///
/// # Errors
/// If the template fails, which is a fault of this crate.
pub fn render(page: &Page) -> Result<String, ReportError> {
    let mut templates = Environment::new();
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    templates.add_template("report.html", TEMPLATE)?;
    let style = format!("{UPLOT_STYLE}\n{STYLE}");
    let policy = format!(
        "default-src 'none'; img-src data: blob:; style-src '{}'; script-src '{}' '{}'; base-uri 'none'; \
         form-action 'none'",
        hash(&style),
        hash(UPLOT),
        hash(SCRIPT)
    );
    let figures: Vec<&Figure> = page.sections.iter().flat_map(|s| &s.figures).collect();
    Ok(templates.get_template("report.html")?.render(context! {
        page => page,
        policy => policy,
        style => style,
        uplot => UPLOT,
        uplot_license => UPLOT_LICENSE,
        script => SCRIPT,
        figures => json_in_html(&figures),
    })?)
}

/// What a content security policy names a script or a style by.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// JSON that can stand in a script element: no `<` that could close it.
fn json_in_html(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned());
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
