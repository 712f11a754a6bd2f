"""Trials after training: k/n with an interval, from recorded episodes only."""
