"""One settings class per algorithm. Importing them imports no torch."""
