"""One file for each framework: `make(case, arrays, participant)` gives the Job its worker times."""
