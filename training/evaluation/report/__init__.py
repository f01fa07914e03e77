"""What a reader sees of an evaluation: tables, pictures, the page. No number is computed here."""
