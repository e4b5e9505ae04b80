//! LeRobotDataset v3.0: reading, writing, statistics and checks.
