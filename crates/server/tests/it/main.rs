//! The server from outside: its commands, its configuration, its doors.

mod admin;
mod cli;
mod coherence;
mod config;
mod demo;
mod disk;
mod doctor;
mod events;
mod fleet;
mod front;
mod leases;
mod postgres;
mod reload;
mod resp;
mod running;
mod serve;
mod shared_tiers;
