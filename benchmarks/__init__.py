"""Programs that measure this package; the tests share the faults and the small SAEs with them."""
