"""What the commands of trainings share: their settings and their options. No network here."""
