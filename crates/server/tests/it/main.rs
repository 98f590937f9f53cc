//! The server from outside: its commands, its configuration, its doors.

mod admin;
mod behind;
mod behind_fleet;
mod both;
mod cli;
mod coherence;
mod config;
mod demo;
mod dependencies;
mod disk;
mod doctor;
mod domains;
mod events;
mod fleet;
mod fleet_disk;
mod front;
mod leases;
mod postgres;
mod reload;
mod resp;
mod running;
mod serve;
mod shared_tiers;
mod through;
mod writes;
