//! AWS's quotas: the operator keeps below its rates, shares its reads, and queues where the account is full.
mod account_rates;
mod cached_reads;
mod domain_limit;
