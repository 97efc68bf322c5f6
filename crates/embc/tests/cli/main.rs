//! The program as its users meet it: real files, real processes, exit codes and messages.

mod anywhere;
mod cases;
mod choose;
mod compress;
mod export;
mod fetch;
mod files;
mod golden;
mod histories;
mod hostile;
mod leaks;
mod own;
mod readers;
mod real;
mod sandbox;
mod smoke;
mod splits;
mod survive;
mod theory;
mod tidy;
mod workers;
mod worlds;
