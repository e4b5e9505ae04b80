//! Tabletop, the embedded simulated robot, its experts, roll-outs and reports.
