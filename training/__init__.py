"""From FakeInstruct shards and images to a trained, scored model; never touches the database."""
