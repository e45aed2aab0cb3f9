"""What may be opened: pinholes, the rules about them, and the gate that looks at what comes through."""
