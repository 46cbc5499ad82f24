//! Drift: all that another writer can change or delete behind the operator's back, row by row, one file per
//! kind of resource.
mod apis;
mod bucket_settings;
mod cluster;
mod domain;
mod every_row;
mod records;
mod storage;
mod table;
