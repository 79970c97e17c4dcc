// Names that people gave to the features of the dictionary that is open.
let given = {};
export const take = names => { given = names ?? {}; };
export const named = feature => given[feature] ?? {name: "", note: ""};
export const rename = (feature, {name, note}) => { given[feature] = {name, note}; };
export const called = feature => named(feature).name ? `${feature}: ${named(feature).name}` : `feature ${feature}`;
