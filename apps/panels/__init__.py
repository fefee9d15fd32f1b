"The dashboard's panels: each lays itself out, fills itself, and says which of its choices stand in the address."
