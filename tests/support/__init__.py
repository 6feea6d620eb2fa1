"""What several test files share, by concern; no test file imports from another."""
