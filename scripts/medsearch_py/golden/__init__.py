"""Small hard files with known answers, for the comparison of the Rust and the Python pipeline."""
