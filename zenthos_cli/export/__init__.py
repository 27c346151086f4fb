"""`zenthos export`: tables into files, by way of the OTA server."""
