"""Does an augmentation help a detector? The same one, trained once per augmentation and seed."""
