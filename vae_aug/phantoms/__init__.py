"""Images that are made by formulas, for the demo, the tests and the speed measurement."""
