//! What was measured, by load and layers: medians of what several rounds had.

use std::fmt;

use crate::load::Tally;
use crate::{LASTS, LOADS};

/// One cell, all rounds of it.
#[derive(Debug)]
struct Cell {
    load: f64,
    layers: &'static str,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    /// Answers in time over the capacity that was measured just before.
    goodput: f64,
    tally: Tally,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    cells: Vec<Cell>,
}

impl Table {
    pub(crate) fn add(&mut self, load: f64, layers: &'static str, capacity: f64, tally: Tally) {
        let goodput = tally.good() as f64 / LASTS.as_secs_f64() / capacity;
        let run = Run { goodput, tally };
        match self.cells.iter_mut().find(|cell| cell.load == load && cell.layers == layers) {
            Some(cell) => cell.runs.push(run),
            None => self.cells.push(Cell { load, layers, runs: vec![run] }),
        }
    }

    /// By load, for each kind of layers.
    pub(crate) fn series(&self) -> Vec<(&'static str, Vec<(f64, f64)>)> {
        let first = self.cells.iter().filter(|cell| cell.load == LOADS[0]);
        first.map(|cell| (cell.layers, self.of(cell.layers))).collect()
    }

    fn of(&self, layers: &str) -> Vec<(f64, f64)> {
        let cells = self.cells.iter().filter(|cell| cell.layers == layers);
        let mut points: Vec<_> = cells.map(|cell| (cell.load, cell.median(|run| run.goodput))).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    }

    /// What is left at the highest load of the most that there was at any.
    pub(crate) fn kept(&self, layers: &str) -> f64 {
        let points = self.of(layers);
        let peak = points.iter().map(|point| point.1).fold(0.0, f64::max);
        points.last().map_or(f64::NAN, |point| point.1 / peak)
    }

    /// Of the goodput of `one` over that of `other`, by load; each round is compared with itself.
    pub(crate) fn over(&self, one: &str, other: &str) -> Vec<(f64, f64)> {
        let cells = |layers| self.cells.iter().filter(move |cell| cell.layers == layers);
        let ratio = |one: &Cell| {
            let other = cells(other).find(|cell| cell.load == one.load)?;
            let ratios = one.runs.iter().zip(&other.runs).map(|(one, other)| one.goodput / other.goodput);
            Some((one.load, median(ratios.collect())))
        };
        let mut ratios: Vec<_> = cells(one).filter_map(ratio).collect();
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        ratios
    }
}

impl Cell {
    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| load | layers | goodput / capacity | of all rounds | p50 ms | p99 ms | high | normal | low |")?;
        writeln!(f, "|---:|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for load in LOADS {
            for (layers, _) in self.series() {
                let cell = |cell: &&Cell| cell.load == load && cell.layers == layers;
                let Some(cell) = self.cells.iter().find(cell) else { continue };
                let goodput = cell.median(|run| run.goodput);
                let each = || cell.runs.iter().map(|run| run.goodput);
                let (least, most) = (each().fold(f64::MAX, f64::min), each().fold(0.0, f64::max));
                let ms = |share| cell.median(|run| run.tally.quantile(share).map_or(f64::NAN, |time| time * 1e3));
                let [low, normal, high] = [0, 1, 2].map(|index| cell.median(|run| run.tally.shares()[index]) * 100.0);
                writeln!(
                    f,
                    "| {load} | {layers} | {goodput:.2} | {least:.2} to {most:.2} | {:.1} | {:.1} | {high:.0}% | {normal:.0}% | {low:.0}% |",
                    ms(0.5),
                    ms(0.99)
                )?;
            }
        }
        Ok(())
    }
}
