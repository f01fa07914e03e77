"""What a run is: settings, the stages that follow from them, the resolved job. Nothing is computed here."""
