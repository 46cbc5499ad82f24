//! Objects as deployment tools see them: applied from a repository, and judged by their conditions.
mod kstatus;
mod partner_by_merge;
