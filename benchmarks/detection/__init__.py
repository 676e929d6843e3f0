"""Does an augmentation help a detector? The same one is trained per augmentation and seed."""
