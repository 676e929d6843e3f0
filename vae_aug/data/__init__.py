"""Files to elements: decoding, annotations, records, the embedded source."""
