"""What a maze agent wants: vector fields, decisions between cheese and corner, and steering."""
