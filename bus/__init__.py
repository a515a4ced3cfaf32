"""What may be lost: bells and wake-ups over Redis or Valkey. Flush it and only some waiting gets longer."""
