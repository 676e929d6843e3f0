"""TFRecords of images and boxes: their features, shards, reading, writing and checks."""
