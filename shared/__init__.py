"""What the SDK, the coordinator and the workers share. Imports none of them; import-linter checks its layers."""
