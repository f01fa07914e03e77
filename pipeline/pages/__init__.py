"""What all HTML pages share: their frame, colours, pictures and faces, so that they look and behave alike."""
