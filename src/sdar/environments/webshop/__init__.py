"""WebShop as text: a shop with a search engine, product pages, options and a shopping goal."""
