//! What people look at: the table, `results.csv` and `report.html`.

mod cells;
mod certainty;
mod csv;
mod figures;
mod html;
mod layer_map;
mod svg;
mod table;
mod timing;

pub use csv::csv;
pub use html::html;
pub use table::table;
