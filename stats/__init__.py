"""Statistics of counts: pure functions that know neither SQL nor HTTP."""
